"""The same work through plain Ray actors, a Ray ActorPool, Dask distributed and Celery on Redis."""
