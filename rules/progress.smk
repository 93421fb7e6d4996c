# A status line per stage while a real run works: done, running and failed of all planned. After a dry run: what and why.
import atexit
import logging

from snakemake_interface_logger_plugins.common import LogEvent

from sft_atlas.runtime.progress import Outlook, Progress


class StageProgress(logging.Handler):
    """Listens to Snakemake's own events; keeps the count of a real run, and of a dry run what it would do and why."""

    def __init__(self):
        super().__init__()
        self.progress, self.outlook, self.rule_of = Progress(), Outlook(), {}
        atexit.register(self.outlook.show)

    def emit(self, record):
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and workflow.dryrun:
            specs = [SPECS.get(str(path).removeprefix(f"{CONFIG.results}/")) for path in record.output or ()]
            if specs:
                gpu_hours = sum(ESTIMATES.of(spec).gpu_hours for spec in specs if spec)
                self.outlook.add(record.rule_name, record.reason, gpu_hours)
        elif event == LogEvent.RUN_INFO:
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
    try:
        jobs = priced(ESTIMATES, planned_jobs())
    except StudyError as error:
        raise WorkflowError(str(error))
    price, peak = total(jobs), disk_at_peak(jobs, schedule(jobs, CONFIG.gpus), STUDY.keep_weights)
    print(
        f"{PLAN.summary()}; about {hours(price.gpu_hours)} GPU-hours, {hours(price.cpu_hours)} CPU-hours "
        f"and {size(peak)} of disk at peak",
        file=sys.stderr,
    )
    logger = logging.getLogger("snakemake.logging")
    for handler in logger.handlers:
        handler.addFilter(not_chatter)
    logger.addHandler(StageProgress())
