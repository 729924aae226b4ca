"""No modules import each other in a circle; imports for types alone count. Which way rooms point is import-linter's."""

import grimp
import networkx


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("earshot", "stages", cache_dir=None)
    pairs = [(module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)]
    circles = [group for group in networkx.strongly_connected_components(networkx.DiGraph(pairs)) if len(group) > 1]
    assert not circles
