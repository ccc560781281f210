"""How fast networks and engines are: latency, throughput, power, as trtexec measures them."""
