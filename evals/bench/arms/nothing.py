"""What a worker of jobs_per_second.py runs: nothing, and no import for it."""


def run(run: object) -> dict[str, object]:
    return {}
