"""For authors of reporters that speak HTTP: a connection, where it may lead, and what an answer means for a batch.

Nothing of the core imports it: the core does not touch the network. ``endpoint`` and ``answers`` are pure;
``connection`` needs the extra ``http`` and is to be imported with the first request.

    check_endpoint(text, secret)             → what is wrong with an address, or None
    Connection(endpoint, agent).request(…)   → an Answer, whatever its status; RetryLater where there is none
    refusal(answer, …)                       → what to raise for an answer that is no success
    document(answer)                         → the JSON object in it
    split(body, names)                       → the fields that a service calls otherwise, and all others
    PostingReporter                          → a reporter that has all this, but for what is sent
"""
