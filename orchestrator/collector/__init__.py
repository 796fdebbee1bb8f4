"""The collector: a process beside the supervisor that reads what ranks and hosts say while a run goes on.

It takes in the logs and measurements of an attempt as they grow, writes `metrics.jsonl`, and tells the
supervisor what it finds (hangs, stragglers, faults, new checkpoints) as JSON lines on its standard output.
It decides nothing: a run goes on without it.

    files.py      which files there are, and the bytes that are new in them
    parse.py      what a line tells of a step; names.py: what the values are called
    times.py      when a byte of a log was written
    steps.py      the lines of a chunk as records of their rank, thinned
    samples.py    the agents' measurements as records
    hang.py straggler.py   rules, functions of values
    tags.py       new checkpoints
    write.py      metrics.jsonl, and where to go on after a restart
    collect.py    all of it together
"""

END = b"end\n"
"""What the supervisor writes when the attempt is over."""
