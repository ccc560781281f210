"""`engine doctor`: what went wrong, by its log, or what is wrong with this machine."""

from __future__ import annotations

import argparse

from airside_perception.deploy.doctor.log import describe_diagnosis, diagnose, recognise
from airside_perception.deploy.doctor.machine import describe_examination, examine
from airside_perception.deploy.doctor.needs import read_needs
from airside_perception.deploy.verb import Answer

DESCRIPTION = """\
Recognises known failures in a log of TensorRT, trtexec, Triton or this package, and says what
causes and mends them. Without a log: looks whether this machine can run what the parameters name.
Exit status 1: the log reports errors, or something keeps a node from its work."""
EXAMPLES = """\
engine doctor build.log
engine doctor
engine doctor - --json
engine doctor --text "CUDA initialization failure with error: 35"
engine doctor --params /opt/vehicle/perception.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('log', nargs='?', default='', metavar='LOG', help='text to look into; -: standard input')
    add('--text', default='', metavar='TEXT', help='look into this, e.g. the text of an exception')
    add(
        '--params', metavar='YAML',
        help='without a log: the parameters that this machine is to run; default: the shipped',
    )  # fmt: skip


def run(options: argparse.Namespace) -> Answer:
    """Looks into a log, or at this machine."""
    if options.log or options.text:
        log = recognise(options.text) if options.text else diagnose(options.log)
        return Answer(describe_diagnosis(log), log.as_dict(), log.good)
    found = examine(read_needs(options.params))
    return Answer(describe_examination(found), found.as_dict(), found.good)
