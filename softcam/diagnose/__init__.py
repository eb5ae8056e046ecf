"""`--diagnose`: checks the machine and one camera from end to end, and makes a report for people and for programs.

The main thread runs the checks of `diagnosis` in order, each in a thread with a deadline (`runner`). `machine` and
`devices` check the machine, `stream`, `controls`, `encoders` and `openings` the camera, through the same session as the
portal (`camera`). `report` has the outcome and its two forms.
"""
