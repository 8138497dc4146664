"""The package in Python: the verbs on objects in memory, with their settings given by name.

Nothing below this room knows of it. `verbs.pyi` is written from what is here.

    problems.py   rows, data sets and tasks as problems
    results.py    a run and scores, to look at and to go on with
    keywords.py   what the verbs take by name, from the settings' declarations
    calls.py      objects become paths and names, and are at hand while a call lasts
    verbs.py      the verbs
"""
