"""The page of `hones app`: ask a model about a picture, edit it by hand, and see what it says then.

question.py and edit.py are what is asked and what is done to the model, as data; offered.py is what a run folder has to
offer; desk.py holds the model and does what the page asks for; shown.py draws; page.py alone knows gradio.
"""
