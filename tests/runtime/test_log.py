"""The log is shown while a call lasts, unless somebody else sees to logs."""

import subprocess
import sys

SHOW = """
import logging, sys
{before}
from astarpo.runtime.log import LOGGER, shown_log
with shown_log():
    LOGGER.info("inside")
LOGGER.info("after")
{after}
"""


def shown(before: str = "", after: str = "") -> str:
    code = SHOW.format(before=before, after=after)
    words = [sys.executable, "-c", code]
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert not done.stdout
    return done.stderr


def test_a_script_that_has_not_set_up_logging_sees_the_log():
    assert shown() == "inside\n"
    assert shown(after="logging.basicConfig(); logging.warning('own')").endswith("root:own\n")


def test_an_applications_logging_is_left_alone():
    assert shown("logging.basicConfig(format='app %(message)s')") == ""
    both = "logging.basicConfig(format='app %(message)s', level=logging.INFO)"
    assert shown(both) == "app inside\napp after\n"
    assert shown("logging.getLogger('astarpo').setLevel(logging.ERROR)") == ""
