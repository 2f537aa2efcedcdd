"""Names of the files of a run folder that programs without torch read, too."""

STATS_FILE = "stats.jsonl"
OPTIONS_FILE = "training_options.json"
FACTS_FILE = "run_facts.json"
LOG_FILE = "log.txt"
REPORT_FILE = "report.html"
