"""Experiments: algorithms or settings against each other over seeds. See `plan.py` for the files.

request.py  what is asked for      stages.py   runs the missing stages
plan.py     settings of every run  results.py  collects the results     table.py  the tables
"""
