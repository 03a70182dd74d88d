"""Ids, random run names and slugs, and which names are near to a word.

Randomness comes from the kernel at each call: a forked child never repeats its parent's ids.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache

_ADJECTIVES = """
able agile amber ample azure bold brave brief bright brisk bronze calm candid careful cheerful
clever cobalt cool copper coral cosmic crimson crisp curious daring dapper deft eager early
earnest elegant ember fair fancy fearless fleet fluffy fond frank free fresh friendly gentle
gifted gigantic glad gleaming golden graceful grand green happy hardy hazel honest humble ideal
indigo ivory jade jolly jovial keen kind lavender lively loyal lucid lucky lunar magenta majestic
maroon mellow merry mighty mindful modest nimble noble olive opal orange orderly patient peaceful
plucky polite proud purple quick quiet radiant rapid rare ready regal robust rosy rugged russet
sage sandy scarlet serene sharp silent silver sincere sleek smart snug solar solid spry stable
steady stellar sturdy sunny swift tactful teal tidy tranquil true trusty upbeat valiant velvet
vivid warm wise witty zealous
"""
_ANIMALS = """
aardvark albatross alpaca ant anteater antelope armadillo auk avocet badger barbet bat bear
beaver bee beetle bison bittern boar bobcat buffalo bulbul bunting camel capybara caracal cardinal
caribou cat chameleon cheetah chinchilla chipmunk civet clam cobra cockatoo condor coot coral
cormorant cougar coyote crab crane cricket crow cuckoo curlew deer dingo dodo dolphin donkey dove
dragonfly duck dugong dunlin eagle echidna eel egret eland elephant elk emu ermine falcon ferret
finch firefly flamingo fox frog gannet gazelle gecko gerbil gibbon giraffe gnu goat goldfinch
goose gopher grebe grouse guanaco gull hare harrier hawk hedgehog heron hippo hornbill horse
hummingbird hyena hyrax ibex ibis iguana impala jackal jackdaw jaguar jay kangaroo kestrel
kingfisher kite kiwi koala kookaburra kudu lark lemming lemur leopard limpet lion lizard llama
lobster loon lynx macaw magpie mallard manatee mandrill mantis marlin marmot marten meerkat mink
mole mongoose moose moth mouse mule muskrat narwhal newt nightjar numbat ocelot octopus okapi
opossum orca oriole oryx osprey ostrich otter owl ox oyster panda pangolin panther parrot
partridge peacock pelican penguin petrel pheasant pigeon pika plover pony porcupine puffin puma
quail quokka rabbit raccoon raven reindeer rhino robin rook salamander seal shark sheep shrew
shrike skink skunk skylark sloth snail snipe sparrow squid squirrel starling stork swallow swan
swift tapir tarsier tern thrush tiger toad tortoise toucan trogon trout tuna turkey turtle viper
vole vulture wallaby walrus warbler weasel whale whimbrel wolf wolverine wombat woodpecker wren
yak zebra
"""
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SLUG = r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?"


def new_id() -> str:
    """Return a new random id: a version 4 UUID (RFC 9562), 36 lower-case characters."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def random_run_name() -> str:
    """Return a name that a person can say, such as ``gigantic-cockatoo``; it may repeat."""
    number = int.from_bytes(os.urandom(8))
    adjectives, animals = _words()
    return f"{adjectives[number % len(adjectives)]}-{animals[(number >> 32) % len(animals)]}"


def is_slug(text: str) -> bool:
    """Return whether a text is a name that needs no quotes anywhere: such as ``slack-webhook``.

    Lower-case letters, digits and hyphens, at most 100, with a letter or digit at each end.
    """
    return re.fullmatch(_SLUG, text) is not None


def kebab_case(name: str) -> str:
    """Return the name of a class as a slug: ``SlackWebhook`` is ``slack-webhook``."""
    return _WORD_START.sub("-", name).lower().replace("_", "-").strip("-")


@cache
def _words() -> tuple[list[str], list[str]]:
    return _ADJECTIVES.split(), _ANIMALS.split()


def near_names(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that a person who gave a word may have meant, the nearest first; at most three."""
    from difflib import get_close_matches  # where something is wrong

    known = [*names]
    begun = [name for name in sorted(known) if word.strip("-") and name.startswith(word)]
    return (begun or get_close_matches(word, known))[:3]


def near_hint(word: str, names: Iterable[str]) -> str | None:
    """Return a hint at the names that a person may have meant; None where none is near."""
    *others, last = ["", *near_names(word, names)]
    if not last:
        return None
    return f"did you mean {' or '.join(filter(None, [', '.join(others[1:]), last]))}?"
