"""A plugin of pytest that adds methods to the list: those of docs/guide/new_method.md, and one written from that page.

It is loaded by ``-p newcomers``, because `tests/common/test_methods.py` reads the list when it is imported.
"""

import re
import sys
import types
from pathlib import Path

from xmodal.cards import MethodCard
from xmodal.methods import METHODS, TASKS
from xmodal.methods import settings as method_settings

PAGE = Path(__file__).parents[2] / "docs/guide/new_method.md"
BUILT = "    method = Bridged("  # where `build` of the page draws the weights of its layer


def module_of(name, code):
    """A module with this code, as if it were the file of that name."""
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(code, f"{PAGE.name}: {name}", "exec"), module.__dict__)
    return module


def card_of(module, name):
    """The card of a method of vectors that has a frozen teacher and a term without labels."""
    return MethodCard(
        name=name,
        title="a method for the test of the guide",
        path=f"{module}:build",
        settings=f"{module}:{name.capitalize()}Settings",
        teacher="frozen",
        paired=True,
        modalities="any to any",
        tasks=TASKS,
        unlabelled="used by the teacher's term",
    )


def add(card):
    """One more card in the list of methods."""
    METHODS._cards[card.name] = card


file, settings, _, card, _, bridged, _ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
method_settings.TrustedSettings = module_of("trusted_settings", settings).TrustedSettings
module_of("xmodal.methods.trusted", file)
add(module_of("trusted_card", card).card)
module_of("xmodal.methods.bridged", bridged)
add(card_of("xmodal.methods.bridged", "bridged"))
add(card_of("blended", "blended"))

assert bridged.count(BUILT) == 1
unseeded = bridged.replace(BUILT, "    torch.seed()\n" + BUILT).replace("Bridged", "Unseeded")
module_of("xmodal.methods.unseeded", unseeded)
add(card_of("xmodal.methods.unseeded", "unseeded"))
