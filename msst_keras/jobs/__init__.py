"""The jobs of `msst`, for Python: a module each, with one function of the job's name that takes the job's options.

    from msst_keras.evaluation.options import EvaluateOptions
    from msst_keras.jobs.evaluate import evaluate

    results = evaluate(EvaluateOptions(predictions="maps", ground_truth="DAVIS", output_dir="results"))

The options of a job are those of its flags, with the same names, defaults and meanings; `msst JOB --helpshort` shows
them in groups, and each group is a dataclass.
"""
