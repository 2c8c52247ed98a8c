"""python -m benchmarks SUITE [--cases PART ...] [--variants NAME ...] [--rounds N]

Times a suite, prints a table and adds the result to benchmarks/history.
"""

import argparse

from benchmarks import harness

SUITES = ("objective", "step", "input", "gpu")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument(
        "--cases", nargs="+", help="parts of names of cases; default all"
    )
    parser.add_argument("--variants", nargs="+", help="names; default all")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each variant")
    options = parser.parse_args()
    result = harness.run(
        f"benchmarks.{options.suite}",
        options.cases,
        options.rounds,
        options.variants,
    )
    print(harness.table(result))
    print(harness.write(result))


if __name__ == "__main__":
    main()
