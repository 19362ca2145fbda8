"""What each kind of plugin promises, as tests: subclass the contract of your kind, and say what it cannot know.

A test of a contract is called like the promise that it holds you to. Each can fail: ``tests/testing`` of this project
breaks every promise in turn.
"""
