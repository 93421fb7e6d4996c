# What the command line asks for, and where, is looked at once before jobs are sought: a mistake is one line.
from sft_atlas.study.moving import moving, refuse_moving
from sft_atlas.study.targets import mistaken_target


def refuse_mistakes():
    """End this run with one line if a target does not exist, or if nothing can be written here."""
    if not os.access(".", os.W_OK):
        end(f"nothing can be written to {Path.cwd()}; run in a folder of your own: snakemake --directory FOLDER …")
    asked = sorted(workflow.dag_settings.targets or ())
    made = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
    made += [str(path) for rule in workflow.rules if not rule.has_wildcards() for path in rule.output]
    names = [rule.name for rule in workflow.rules if rule.name in TARGETS]
    mistake = mistaken_target(asked, names, made, {*SPECS, PRICED}, CONFIG.results)
    if mistake:
        end(mistake)


def check_revisions(jobs):
    """Refuse jobs whose results stay on the disk for long if a source of the study can move under them.

    Raises:
        WorkflowError: names the sources and what to do.
    """
    outputs = {path.removeprefix(f"{CONFIG.results}/") for job in jobs for path in map(str, job.output)}
    if any(SPECS[output].version for output in outputs & SPECS.keys()):
        try:
            refuse_moving(PLAN)
        except StudyError as error:
            raise WorkflowError(str(error))


def end(text):
    tell(f"error: {text}")
    sys.exit(1)


if workflow.is_main_process:
    find_jobs = workflow._prepare_dag

    def prepare_dag(*arguments, **options):
        refuse_mistakes()
        moves = None if STUDY.allow_moving or not workflow.dryrun else moving(PLAN)
        if moves:
            tell(f"warning: {moves}")
        return find_jobs(*arguments, **options)

    workflow._prepare_dag = prepare_dag
