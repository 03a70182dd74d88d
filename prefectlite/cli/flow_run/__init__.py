"""See flow runs, follow them, wait for them, pause, resume, cancel and delete them.

``prefectlite flow-run``. What reads the registry writes to it only to record which processes died.
"""

COMMANDS = ("ls", "inspect", "logs", "watch", "wait", "cancel", "pause", "resume", "delete")
