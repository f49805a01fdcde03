"""The pages for marketers and on-call in the Airflow UI: what there is, for the menu.

`app.make(deps)` builds the web app. It is imported at the first request only: every task process loads the plugin, and with
it this module, which therefore imports nothing. A new page is a module with `routes(deps)`, a fragment of HTML and a script of
the same name in `static/`, and one line here.
"""

# route below /postlude, and so the name of its fragment and script: (name in the menu, title)
PAGES = {
    "calendar": ("Calendar", "Campaign calendar"),
    "campaigns": ("Campaigns", "Campaigns"),
    "segments": ("Segments", "Segments"),
    "approvals": ("Approvals", "What waits for a yes"),
    "wizard": ("New campaign", "A new campaign"),
    "customers": ("Customer", "A customer"),
    "stop": ("Stop mail", "Stop mail"),
    "why": ("Why?", "Why did somebody get a message, or not?"),
}
