"""The stand-ins that the local stack and the tests run on: real processes on this machine, stopped without a trace."""
