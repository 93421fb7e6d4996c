# A status line per stage while a real run works: done, running and failed of all planned.
import logging

from snakemake_interface_logger_plugins.common import LogEvent

from sft_atlas.progress import Progress


class StageProgress(logging.Handler):
    """Listens to Snakemake's own events and keeps the count; it changes nothing."""

    def __init__(self):
        super().__init__()
        self.progress, self.rule_of = Progress(), {}

    def emit(self, record):
        event = getattr(record, "event", None)
        if event == LogEvent.RUN_INFO:
            self.progress.plan({rule: n for rule, n in record.stats.items() if rule not in ("total", "all")})
        elif event == LogEvent.JOB_INFO:
            self.rule_of[record.jobid] = record.rule_name
            self.progress.started(record.rule_name)
        elif event == LogEvent.JOB_FINISHED:
            self.progress.finished(self.rule_of.get(record.job_id))
        elif event == LogEvent.JOB_ERROR:
            self.progress.failed(self.rule_of.get(record.jobid), record.log)


def not_chatter(record):
    """Drop what Snakemake's scheduler says of every single job; the lines per stage say it better."""
    text = str(record.msg)
    chatter = text.startswith("Select jobs to execute") or (text.startswith("Execute ") and text.endswith("jobs..."))
    return not chatter and getattr(record, "event", None) not in (LogEvent.JOB_FINISHED, LogEvent.PROGRESS)


if workflow.is_main_process:
    print(PLAN.summary(), file=sys.stderr)
    logger = logging.getLogger("snakemake.logging")
    for handler in logger.handlers:
        handler.addFilter(not_chatter)
    logger.addHandler(StageProgress())
