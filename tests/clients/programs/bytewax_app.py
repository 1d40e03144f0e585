"""Bytewax: reads a topic to its end and writes it to another: `bytewax_app.py BOOTSTRAP`."""

import sys

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, operators as kop
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

bootstrap = sys.argv[1]
flow = Dataflow("shout")
lines = kop.input("in", flow, brokers=[bootstrap], topics=["lines"], tail=False)
loud = op.map("loud", lines.oks, lambda line: KafkaSinkMessage(line.key, line.value.upper()))
kop.output("out", loud, brokers=[bootstrap], topic="bytewax-out")
cluster_main(flow, [], 0, worker_count_per_proc=1)
