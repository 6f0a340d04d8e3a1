"""python -m adaspec_jax.compare --workdir DIR [DIR ...]

Acceptance of finished runs beside the paper's: a row per run, whether the published gain lies in the run's interval,
and which settings are not the paper's. DIR may also be the report.json itself. With --parity, runs that have no
certificate yet get one (see `python -m adaspec_jax.parity`); exit status 1 if any does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaspec_jax.errors import UserError, exit_with_one_line, keeping
from adaspec_jax.options import COUNT, check_outputs, parse_arguments, parser_of


def read(path: str | Path) -> dict[str, Any]:
    """`compare` of a run's directory or report; UserError where the report lacks what that takes."""
    from adaspec_jax import reporting
    from adaspec_jax.reporting.comparison import compare, table

    try:
        found = compare(reporting.read_report(path))
        table({str(path): found})  # whatever that takes is there
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the report of {path} is damaged ({type(error).__name__}: {error}); measure anew by the run's own command"
        ) from None
    return found


def certify(path: str, num_prompts: int) -> None:
    """Stores a parity certificate in the run's report, unless it has one."""
    from adaspec_jax import parity, reporting

    if reporting.read_report(path).get("parity"):
        return
    if not Path(path).is_dir():
        raise UserError(f"--parity needs the run's directory, with its models; {path} is a file")
    parity.store(path, parity.certificate(path, num_prompts=num_prompts))


@keeping("certificates that were stored stay; the same command makes the others")
def main() -> None:
    parser = parser_of("compare", __doc__)
    parser.add_argument("--workdir", required=True, nargs="+", help="of finished runs, or their report.json")
    parser.add_argument("--parity", action="store_true", help="with transformers, for runs that lack a certificate")
    parser.add_argument("--num_prompts", type=COUNT, default=20, help="of a new certificate")
    parser.add_argument("--json", help="where the comparison goes, unrounded")
    arguments = parse_arguments(parser)
    check_outputs(arguments, "json")

    from adaspec_jax import reporting
    from adaspec_jax.reporting.comparison import table

    compared = {path: read(path) for path in arguments.workdir}  # what cannot be read is said before anything is done
    if arguments.parity:
        for path in arguments.workdir:
            certify(path, arguments.num_prompts)
        compared = {path: read(path) for path in arguments.workdir}
    if arguments.json:
        reporting.write_json(arguments.json, {"runs": [{"run": path, **found} for path, found in compared.items()]})
    print(table(compared, columns=reporting.columns_of()))
    if arguments.parity and not all(found["parity"]["passed"] for found in compared.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    exit_with_one_line(main)
