"""A small plant on 127.0.0.1 that speaks the real protocols: a press, an oven and a packing cell.

Seeded and deterministic in elapsed time; it knows the truth, so that what was received can be compared with what was
made. It shares no code with the agent's drivers. Only the command line imports it, and only when it is asked for.

    machine.py   the schedule of one machine: states, parts and scrap as a function of (seed, elapsed time)
    plant.py     the machines and their clock: start, freeze, truth
    press.py     press-01, a PLC on Modbus TCP
    oven.py      oven, a PLC on OPC UA
    packing.py   packing-cell, a scale (MT-SICS) and a counter (Modbus RTU), each on a pseudo terminal
    serve.py     all of it in one asyncio process
    control.py   commands by lines, for a program that drives the plant
"""
