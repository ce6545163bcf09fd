"""The tools that Anthropic defines by a type string and the client runs: bash, text editor, memory, computer.

Claude knows their inputs by heart; an open model has to be told, so each gets a schema and a description of ours.
The model's call keeps the tool's name, and the client cannot tell the difference.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qiao.core.anthropic import wire


class BuiltinTool(msgspec.Struct, frozen=True):
    """`name`: what clients call it; `parameters`: JSON Schema text."""

    name: str
    description: str
    parameters: str


_BASH: Final = BuiltinTool(
    "bash",
    "Run a command in a persistent bash session and return its output. State (working directory, variables) is kept"
    " between calls. Set restart to true, without a command, to start a fresh session.",
    '{"type":"object","properties":{'
    '"command":{"type":"string","description":"The bash command to run. Required unless restart is true."},'
    '"restart":{"type":"boolean","description":"Start the session anew instead of running a command."}}}',
)

_MEMORY: Final = BuiltinTool(
    "memory",
    "Keep notes in files under /memories that outlast this conversation. Look at the directory before starting a"
    " task, and write down what will matter later.",
    '{"type":"object","properties":{'
    '"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"],'
    '"description":"What to do."},'
    '"path":{"type":"string","description":"File or directory under /memories; for every command but rename."},'
    '"view_range":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2,'
    '"description":"For view: first and last line to show, counted from 1."},'
    '"file_text":{"type":"string","description":"For create: the content of the file."},'
    '"old_str":{"type":"string","description":"For str_replace: the exact text to replace; it must occur once."},'
    '"new_str":{"type":"string","description":"For str_replace: the text to put in its place."},'
    '"insert_line":{"type":"integer","description":"For insert: the line after which to insert; 0 is the top."},'
    '"insert_text":{"type":"string","description":"For insert: the text to insert."},'
    '"old_path":{"type":"string","description":"For rename: the present path."},'
    '"new_path":{"type":"string","description":"For rename: the path to move to."}},'
    '"required":["command"]}',
)

_EDITOR_DESCRIPTION: Final = (
    "View, create and edit text files. view shows a file with line numbers, or lists a directory; create writes a"
    " whole file; str_replace replaces one exact occurrence of a text; insert adds text after a line."
)


def _editor(name: str, *, undo: bool) -> BuiltinTool:
    """`undo`: the versions up to January 2025 could take back the last edit."""
    commands = '"view","create","str_replace","insert"' + (',"undo_edit"' if undo else "")
    return BuiltinTool(
        name,
        _EDITOR_DESCRIPTION + (" undo_edit takes back the last edit of a file." if undo else ""),
        '{"type":"object","properties":{'
        f'"command":{{"type":"string","enum":[{commands}],"description":"What to do."}},'
        '"path":{"type":"string","description":"Absolute path of the file or directory."},'
        '"file_text":{"type":"string","description":"For create: the content of the file."},'
        '"old_str":{"type":"string","description":"For str_replace: the exact text to replace; it must occur once."},'
        '"new_str":{"type":"string","description":"For str_replace: the text to put in its place."},'
        '"insert_line":{"type":"integer","description":"For insert: the line after which to insert; 0 is the top."},'
        '"insert_text":{"type":"string","description":"For insert: the text to insert."},'
        '"view_range":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2,'
        '"description":"For view: first and last line to show, counted from 1; -1 is the end of the file."}},'
        '"required":["command","path"]}',
    )


_COMPUTER_ACTIONS: Final = (
    *("key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click", "double_click"),
    *("screenshot", "cursor_position"),
)
_COMPUTER_ACTIONS_2025: Final = (
    *_COMPUTER_ACTIONS,
    *("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click"),
)

_COMPUTER_BASE: Final = (
    '"coordinate":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2,'
    '"description":"x and y in pixels from the top left; for actions of the mouse."},'
    '"text":{"type":"string","description":"For type: what to write. For key and hold_key: the keys, such as ctrl+s.'
    ' For a click or a scroll: keys held meanwhile."}'
)
_COMPUTER_2025: Final = (
    ',"start_coordinate":{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":2,'
    '"description":"For left_click_drag: where the drag begins."},'
    '"scroll_direction":{"type":"string","enum":["up","down","left","right"],"description":"For scroll."},'
    '"scroll_amount":{"type":"integer","minimum":0,"description":"For scroll: clicks of the wheel."},'
    '"duration":{"type":"number","minimum":0,"description":"For hold_key and wait: seconds."}'
)
_COMPUTER_ZOOM: Final = (
    ',"region":{"type":"array","items":{"type":"integer"},"minItems":4,"maxItems":4,'
    '"description":"For zoom: x0, y0, x1, y1 of the part of the screen to show enlarged."}'
)


def _computer(definition: wire.ToolDefinition, actions: tuple[str, ...], more: str) -> BuiltinTool:
    if definition.enable_zoom:
        actions, more = (*actions, "zoom"), more + _COMPUTER_ZOOM
    size = ""
    if definition.display_width_px and definition.display_height_px:
        size = f" The screen is {definition.display_width_px} pixels wide and {definition.display_height_px} high."
    names = ",".join(f'"{action}"' for action in actions)
    return BuiltinTool(
        "computer",
        f"Use the mouse and the keyboard of a computer and look at its screen.{size} Take a screenshot first to see"
        " where things are, and again after an action to see what it did.",
        '{"type":"object","properties":{'
        f'"action":{{"type":"string","enum":[{names}],"description":"What to do."}},{_COMPUTER_BASE}{more}}},'
        '"required":["action"]}',
    )


_BY_TYPE: Final = {
    "bash_20241022": _BASH,
    "bash_20250124": _BASH,
    "memory_20250818": _MEMORY,
    "text_editor_20241022": _editor("str_replace_editor", undo=True),
    "text_editor_20250124": _editor("str_replace_editor", undo=True),
    "text_editor_20250429": _editor("str_replace_based_edit_tool", undo=False),
    "text_editor_20250728": _editor("str_replace_based_edit_tool", undo=False),
}


def builtin_tool(definition: wire.ToolDefinition) -> BuiltinTool | None:
    """What the type string of `definition` stands for; None if it is not a predefined client tool."""
    match definition.type:
        case None:
            return None
        case "computer_20241022":
            return _computer(definition, _COMPUTER_ACTIONS, "")
        case "computer_20250124" | "computer_20251124":
            return _computer(definition, _COMPUTER_ACTIONS_2025, _COMPUTER_2025)
        case name:
            return _BY_TYPE.get(name)
