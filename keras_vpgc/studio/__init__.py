"""The local web page `vpgc studio`.

`Workspace` is where its files are, `JobQueue` runs the commands of `vpgc` one after the other in
processes of their own, `progress` reads what they write, `page` shows it all.
"""

from keras_vpgc.studio.jobs import Job, JobQueue
from keras_vpgc.studio.workspace import Workspace

__all__ = ["Job", "JobQueue", "Workspace"]
