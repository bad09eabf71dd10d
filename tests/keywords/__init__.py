"""One row for each parameter of each public signature: a call, two values, and the property that must hold.

That two answers differ is no property: a row compares with a theorem, a limit, a closed form, or another call that must
agree. `test_every_keyword.py` runs the rows and fails where a parameter has none.
"""
