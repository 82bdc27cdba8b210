"""A Kubernetes of one node on this machine, for `make kube-test`: real servers, a real kubelet, KubeRay's operator,
real pods. It needs root, 6 GB of memory and, the first time, half an hour to compile; so it is outside CI.

Open `on_a_node.py` first (what is tested), then `node.py` (how the node is made) and `programs.py` (where it is from).
"""
