"""The page on which a project is worked on without writing code, built on Gradio: `peft-mmrl app`.

It shows what `projects` can do and does nothing of its own: what is done here is files in the project's folder, as the
commands leave and read them.
"""
