"""What every Python program of the workload imports first: it has its registry's changes noted.

It stands in a folder of its own, which alone is put on PYTHONPATH for that.
"""

from tests.power_loss.notes import note_changes
from tests.power_loss.planted import plant

note_changes()
plant()
