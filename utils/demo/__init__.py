"""What demo.py shows, from the checks of an upload to the page.

`page` knows Gradio; everything below it works, and is tested, without a browser.
"""
