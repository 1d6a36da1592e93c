# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
"""How many pictures are made on a worker: what :mod:`pictory_provider.batch` says is next, carried out.

``folder`` and ``record`` read and write, ``turns`` keeps the connection's pace, ``wave`` buys, ``delivery`` looks
and saves, ``telling`` says how far it is, ``ending`` what came of it, and ``work`` puts these in order.
"""
