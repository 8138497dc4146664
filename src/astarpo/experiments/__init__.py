"""Experiments: algorithms or settings against each other over seeds. See `plan.py` for the files.

request.py  what is asked for      stages.py   does what is missing
plan.py     settings of every run  results.py  reads what came out      table.py  says it
"""
