# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""Print the definition of the connection form that Airflow's API server sends to browsers, as JSON."""

from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

(form,) = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "pictory"]
print(form.model_dump_json())
