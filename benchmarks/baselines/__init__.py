"""Other systems that find versions, written from facts, weight-compatible with their releases.

A system turns the samples of a recording into vectors in two steps: ``features`` is its front end
(numpy), ``vectors`` its network (torch) or, for those that need no weights, plain arithmetic. What
they share is written once: ``frontend`` and ``layers``. ``systems`` lists them with the place of
their weights; a system without weights has no score.
"""
