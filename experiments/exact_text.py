from tables import *
def report(t): pass
