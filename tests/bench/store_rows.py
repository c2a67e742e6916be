def text(plan, quick, table):
    return ""
