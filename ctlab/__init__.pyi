"""What editors see of the front door; `__init__.py` loads each name when it is first wanted."""
from .cohort.stacks import prepare as prepare
from .judge.audit import audit_table as audit
from .judge.evaluate import judge as judge
from .organs.segment import segment as segment
from .scans.io import read as read, write as write
from .scans.volume import Volume as Volume
from .reporting.viewer import browse as browse, view as view, view3d as view3d
from .trauma.predict import predict_scans as predict

__version__: str
