"""Built-in pictures: generated scenes of coloured shapes and a text label, annotated for all four tasks.

Two sources say the same things in other looks: `shapes`, and `signs` with other fonts, tones, backgrounds and layout,
for tests out of domain. Everything follows from a seed. The label is drawn without a box: the ocr task draws the blue
box from the annotation, as it does on photographs.
"""
