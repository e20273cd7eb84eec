"""From sequences, flow and a motion prior to record folders: locally in several processes, or with Apache Beam."""
