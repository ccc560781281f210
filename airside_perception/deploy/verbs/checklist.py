"""`engine checklist`: what is done and proven, and what is not, before engines go on a vehicle."""

from __future__ import annotations

import argparse

from airside_perception.deploy.checklist.deployment import read_deployment
from airside_perception.deploy.checklist.items import run_checklist
from airside_perception.deploy.checklist.report import as_markdown, as_text
from airside_perception.deploy.checklist.validation import reopen
from airside_perception.deploy.verb import Answer, progress
from airside_perception.files import write_whole

DESCRIPTION = """\
Checks networks, engines and measurements against the deployment checklist. Each item has passed,
with what shows it, has failed, or cannot be checked here, with the command that brings the
evidence. Measurements are what bench, profile and compare print with --json, in files beside the
engines and newer than them.
Exit status 1: an item has failed."""
EXAMPLES = """\
engine checklist --models models
engine checklist --models models --engines /opt/engines --budget-ms 50 --out release.md
engine checklist --engines /opt/engines --evidence measured --triton /opt/triton/models --json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add('--models', default='', metavar='FOLDER', help='networks; default: the shipped')
    add('--engines', default='', metavar='FOLDER', help='default: the folder of the networks')
    add('--evidence', default='', metavar='FOLDER', help='more measurements, .json')
    add('--params', metavar='YAML', help='parameters of the nodes; default: the shipped')
    add('--triton', default='', metavar='REPO', help='a model repository')
    add('--sm', default='sm_87', help="of the vehicle's GPU: %(default)s, Orin")
    add('--budget-ms', type=float, default=0.0, metavar='MS',
        help='longest latency of an engine that is safe, for the p99')  # fmt: skip
    add('--out', default='', metavar='FILE.md', help='write it as Markdown too')


def run(options: argparse.Namespace) -> Answer:
    """Checks all items."""
    found = read_deployment(
        options.models,
        options.engines,
        options.evidence,
        options.params,
        sm=options.sm,
        budget_ms=options.budget_ms,
        triton=options.triton,
        reopen=reopen,
    )
    with progress() as bar:
        checklist = run_checklist(found, bar)
    if options.out:
        write_whole(options.out, as_markdown(checklist))
    return Answer(as_text(checklist), checklist.as_dict(), checklist.good)
