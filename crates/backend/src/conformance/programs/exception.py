# Ends with an exception that nobody catches.
# sim: stdout before\n
# sim: raise ValueError: no such thing
print("before")
raise ValueError("no such thing")
