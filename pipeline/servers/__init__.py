"""Private servers: find a Redis and a Postgres that pip brought, prepare their folders, become them.

Nothing here runs when REDIS_URL and DATABASE_URL name servers of the user's own.
"""
