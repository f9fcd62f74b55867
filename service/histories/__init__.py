"""Users' histories: what they did, and what was shown to them lately. Kept in Redis, or in one process and a file.

Nothing here writes ids of users or items to the log.
"""
