"""Configuration: the table of settings and ``app.conf``, which reads them.

Knows no broker, no worker and no task. ``Settings`` is made by the app; ``mask_url`` serves whoever shows a URL.
"""

from celeriac.conf.masking import mask_url
from celeriac.conf.setting import Kind, Level, Setting, Status
from celeriac.conf.settings import Settings
from celeriac.conf.source import import_object
from celeriac.conf.table import SETTINGS

__all__ = ["SETTINGS", "Kind", "Level", "Setting", "Settings", "Status", "import_object", "mask_url"]
