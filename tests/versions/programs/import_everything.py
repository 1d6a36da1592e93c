# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Import every module of the package with deprecation warnings as errors, and print the modules' names."""

import pkgutil
import warnings
from importlib import import_module

import pictory_provider

for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=category, module=r"pictory_provider\b")
for module in pkgutil.walk_packages(pictory_provider.__path__, "pictory_provider."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
    print(module.name)
