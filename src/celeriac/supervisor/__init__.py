"""The main process of a node: forks the agent and the children, watches them, and does nothing else.

It opens no connection and starts no thread, so that a fork never copies a lock or a socket in use.
"""
