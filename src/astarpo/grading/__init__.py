"""Who judges answers, safely: verifiers, reward functions and the pool of killable workers.

    grade.py        one answer: `astarpo.grade`
    grader.py       many answers: each by its problem's verifier, in the pool where that may hang
    verifiers.py    which verifier judges a `data_source`, and which reward functions may run
    fingerprint.py  before any work: the verifiers' versions, and whether they can judge
    reward.py       a user's own reward function as a verifier
    pool.py         answers to verdicts in worker processes, each answer under a limit that holds
    processes.py    the pool's side of those processes: their server, and a handle for each worker
    worker.py       what runs in those processes; it refuses to run code made from text
    columns.py      judged answers as rows of a file
    verdicts.py     counts of verdicts for the log, with warnings where many were not judged

`grade` and `Grader` are for callers; the others serve them.
"""
