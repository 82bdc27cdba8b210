"""The page of a run, as the run starts it: see `process.py`. For a person there is `twin watch`."""

from twin.page.process import be_beside

be_beside()
