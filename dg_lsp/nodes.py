"""The node types that mean the same thing in any of the grammars; a test holds each name to exist in one of them."""

from __future__ import annotations


def _types(names: str) -> frozenset[str]:
    return frozenset(names.split())


COMMENTS = _types("block_comment comment doc_comment html_comment js_comment line_comment")
STRINGS = _types(
    """ansi_c_string attribute_value char_literal character character_literal encapsed_string heredoc heredoc_body
    interpolated_string_expression interpreted_string_literal nowdoc_string quoted_attribute_value raw_string
    raw_string_literal regex rune_literal string string_literal string_value system_lib_string template_string
    verbatim_string_literal"""
)
UNPARSED = _types("preproc_arg")
"""Text that the grammar does not look into, such as what a macro of C stands for."""
INTERPOLATIONS = _types(
    """arithmetic_expansion command_substitution expansion interpolation string_interpolation template_substitution
    text_interpolation"""
)
FUNCTIONS = _types(
    """anonymous_function anonymous_method_expression arrow_function closure_expression constructor_declaration
    func_literal function_declaration function_definition function_expression function_item generator_function
    generator_function_declaration lambda_expression local_function_statement method method_declaration
    method_definition singleton_method"""
)
BLOCKS = _types(
    """block body_statement class_body compound_statement constructor_body declaration_list do_block do_group element
    enum_body field_declaration_list interface_body match_block statement_block switch_block switch_body then"""
)
JUMPS = _types(
    """break_expression break_statement continue_expression continue_statement raise_statement return_expression
    return_statement throw_statement"""
)
"""What nothing comes behind in the same block. Those of Ruby may have a condition behind them."""
LITERALS = _types(
    """dictionary format_specifier initializer_list jsx_expression lambda literal_value object object_pattern pair slice
    template_substitution type_annotation typed_default_parameter typed_parameter"""
)
"""Parents under which a colon or a brace at the end of a line opens something else than a block."""
