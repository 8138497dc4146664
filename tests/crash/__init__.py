"""Attacks on the command line from outside: `make crash-test`, a sample of it in the suite.

fault.c        kills a process at its n-th file operation, or lets its disk be full or read-only
server.py      processes of the command line, forked from one that has imported everything
world.py       a tiny policy, problems and table; the commands that are attacked
artefacts.py   what a command left behind, without times, to compare byte by byte
kills.py  flips.py  pairs.py  disks.py  wrong_uses.py   the attacks
__main__.py    all of them; figures to benchmarks/results/
"""
