;;; dg-lsp-ghost-tests.el --- Ghost text without a server  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; Run them with the option -L for the folder of the package, then
;; `ert-run-tests-batch-and-exit'.

;;; Code:

(require 'ert)
(require 'elec-pair)
(require 'dg-lsp-ghost)

(defmacro dg-lsp-ghost-tests-in (marked &rest body)
  "Run BODY in a buffer with the text MARKED, point at its bar."
  (declare (indent 1))
  `(save-window-excursion
     (with-temp-buffer
       (switch-to-buffer (current-buffer))
       (buffer-enable-undo)
       (insert ,marked)
       (goto-char (point-min))
       (search-forward "|")
       (delete-char -1)
       (undo-boundary)
       (unwind-protect (progn ,@body)
         (dg-lsp-ghost-hide)))))

(defun dg-lsp-ghost-tests--offer (text &optional replaced)
  "Offer TEXT at point, in the place of the next REPLACED characters."
  (dg-lsp-ghost-offer
   (list (dg-lsp-ghost-item (point) (+ (point) (or replaced 0)) text))))

(defun dg-lsp-ghost-tests--do (&rest texts)
  "Type TEXTS, as commands do."
  (dolist (text texts)
    (insert text)
    (dg-lsp-ghost-refresh)))

(defun dg-lsp-ghost-tests--buffer ()
  "Return the text with a bar at point."
  (concat (buffer-substring-no-properties (point-min) (point)) "|"
          (buffer-substring-no-properties (point) (point-max))))

(defun dg-lsp-ghost-tests--overlays ()
  "Return the overlays of ghost text."
  (cl-remove-if-not (lambda (overlay)
                      (eq (overlay-get overlay 'category) 'dg-lsp-ghost-overlay))
                    (overlays-in (point-min) (point-max))))

(defun dg-lsp-ghost-tests--seen ()
  "Return the text as it is drawn, without properties."
  (let ((text (buffer-substring-no-properties (point-min) (point-max))))
    (dolist (overlay (dg-lsp-ghost-tests--overlays) text)
      (setq text
            (concat
             (substring text 0 (1- (overlay-start overlay)))
             (or (overlay-get overlay 'after-string)
                 (overlay-get overlay 'display))
             (substring text (1- (overlay-end overlay))))))
    (substring-no-properties text)))

(ert-deftest dg-lsp-ghost-tests-word-is-blanks-and-one-run ()
  (pcase-dolist (`(,text ,word) '(("foo bar" "foo") (" foo bar" " foo")
                                  ("+= 1" "+=") ("(a, b)" "(") ("a_1)" "a_1")
                                  ("\n    if x" "\n    if") ("  " "  ")
                                  ("é漢 x" "é漢") ("😀😀 x" "😀😀")))
    (should (equal (substring text 0 (dg-lsp-ghost-word text)) word))))

(ert-deftest dg-lsp-ghost-tests-line-takes-the-break-before-it ()
  (pcase-dolist (`(,text ,line) '(("a b\nc" "a b") ("\nc d\ne" "\nc d")
                                  ("a" "a") ("\n\nb" "\n")))
    (should (equal (substring text 0 (dg-lsp-ghost-line text)) line))))

(ert-deftest dg-lsp-ghost-tests-typing-along-shrinks-and-deleting-grows ()
  (dg-lsp-ghost-tests-in "x = |\n"
    (should (dg-lsp-ghost-tests--offer "foo(1)"))
    (dg-lsp-ghost-tests--do "f" "o")
    (should (equal (dg-lsp-ghost-rest) "o(1)"))
    (should (equal (dg-lsp-ghost-tests--seen) "x = foo(1)\n"))
    (delete-char -1)
    (dg-lsp-ghost-refresh)
    (should (equal (dg-lsp-ghost-rest) "oo(1)"))
    (should (equal (dg-lsp-ghost-tests--seen) "x = foo(1)\n"))
    (should (= (length (dg-lsp-ghost-tests--overlays)) 1))))

(ert-deftest dg-lsp-ghost-tests-anything-else-hides ()
  (dolist (act (list (lambda () (insert "y"))
                     (lambda () (backward-char))
                     (lambda () (delete-char -1))
                     (lambda () (save-excursion (goto-char 1) (insert "f")))
                     (lambda () (save-excursion (insert "y")))
                     (lambda () (open-line 1))
                     (lambda () (switch-to-buffer "*another*"))))
    (dg-lsp-ghost-tests-in "x = |\n"
      (let ((buffer (current-buffer)))
        (dg-lsp-ghost-tests--offer "foo")
        (should dg-lsp-ghost-acceptable)
        (funcall act)
        (dg-lsp-ghost-refresh)
        (should-not (dg-lsp-ghost-rest))
        (with-current-buffer buffer
          (should-not dg-lsp-ghost-acceptable)
          (should-not (dg-lsp-ghost-tests--overlays)))))))

(ert-deftest dg-lsp-ghost-tests-another-window-shows-nothing ()
  (dg-lsp-ghost-tests-in "x = |\n"
    (dg-lsp-ghost-tests--offer "foo")
    (should (eq (overlay-get (car (dg-lsp-ghost-tests--overlays)) 'window)
                (selected-window)))
    (select-window (split-window))
    (dg-lsp-ghost-refresh)
    (should-not (dg-lsp-ghost-tests--overlays))))

(ert-deftest dg-lsp-ghost-tests-the-cursor-stays-before-it ()
  (dg-lsp-ghost-tests-in "x = |\n"
    (dg-lsp-ghost-tests--offer "foo")
    (let ((shown (overlay-get (car (dg-lsp-ghost-tests--overlays))
                              'after-string)))
      (should (get-text-property 0 'cursor shown))
      (should-not (get-text-property 1 'cursor shown)))))

(ert-deftest dg-lsp-ghost-tests-what-is-drawn-has-no-face-by-its-category ()
  (should-not (facep (overlay-get (dg-lsp-ghost--overlay) 'category)))
  (should-not (overlay-get (dg-lsp-ghost--overlay) 'face)))

(ert-deftest dg-lsp-ghost-tests-what-is-replaced-shows-once ()
  (dg-lsp-ghost-tests-in "f(|)\n"
    (dg-lsp-ghost-tests--offer "a, b)" 1)
    (should (equal (dg-lsp-ghost-tests--seen) "f(a, b)\n")))
  (dg-lsp-ghost-tests-in "f(|)\n"
    (dg-lsp-ghost-tests--offer "a) > 1:" 1)
    (should (equal (dg-lsp-ghost-tests--seen) "f(a) > 1:\n"))))

(ert-deftest dg-lsp-ghost-tests-accepting-is-one-undo-step ()
  (pcase-dolist
      (`(,marked ,text ,replaced ,wanted)
       '(("x = |\n" "foo(1)" 0 "x = foo(1)|\n")
         ("f(|)\n" "a, b)" 1 "f(a, b)|\n")
         ("f(|)\n" "a) > 1:\n    pass" 1 "f(a) > 1:\n    pass|\n")
         ("f(|old, c)\n" "new" 3 "f(new|, c)\n")))
    (dg-lsp-ghost-tests-in marked
      (dg-lsp-ghost-tests--offer text replaced)
      (should-not (dg-lsp-ghost-take (length (dg-lsp-ghost-rest))))
      (should (equal (dg-lsp-ghost-tests--buffer) wanted))
      (should-not (dg-lsp-ghost-tests--overlays))
      (let ((last-command nil) (this-command 'undo)) (undo))
      (should (equal (dg-lsp-ghost-tests--buffer) marked)))))

(ert-deftest dg-lsp-ghost-tests-parts-keep-the-rest ()
  (dg-lsp-ghost-tests-in "f(|)\n"
    (dg-lsp-ghost-tests--offer "a, b)\nend" 1)
    (should (dg-lsp-ghost-take (dg-lsp-ghost-word (dg-lsp-ghost-rest))))
    (should (equal (dg-lsp-ghost-tests--buffer) "f(a|)\n"))
    (should (equal (dg-lsp-ghost-tests--seen) "f(a, b)\nend\n"))
    (should (dg-lsp-ghost-take (dg-lsp-ghost-line (dg-lsp-ghost-rest))))
    (should (equal (dg-lsp-ghost-rest) "\nend"))
    (should-not (dg-lsp-ghost-take (dg-lsp-ghost-line (dg-lsp-ghost-rest))))
    (should (equal (dg-lsp-ghost-tests--buffer) "f(a, b)\nend|\n"))))

(ert-deftest dg-lsp-ghost-tests-electric-pairs-are-not-doubled ()
  (dg-lsp-ghost-tests-in "x = |\n"
    (electric-pair-local-mode 1)
    (dg-lsp-ghost-tests--offer "f(a)")
    (dg-lsp-ghost-tests--do "f")
    (let ((last-command-event ?\())
      (call-interactively #'self-insert-command))
    (should (equal (dg-lsp-ghost-tests--buffer) "x = f(|)\n"))
    (dg-lsp-ghost-refresh)
    (should (equal (dg-lsp-ghost-tests--seen) "x = f(a)\n"))
    (dg-lsp-ghost-take (length (dg-lsp-ghost-rest)))
    (should (equal (dg-lsp-ghost-tests--buffer) "x = f(a)|\n"))))

(ert-deftest dg-lsp-ghost-tests-accepted-text-is-left-as-it-is ()
  (dg-lsp-ghost-tests-in "|\n"
    (electric-pair-local-mode 1)
    (electric-indent-local-mode 1)
    (overwrite-mode 1)
    (setq-local indent-line-function (lambda () (insert "wrong")))
    (dg-lsp-ghost-tests--offer "a(\n\tb\n")
    (dg-lsp-ghost-take (length (dg-lsp-ghost-rest)))
    (should (equal (dg-lsp-ghost-tests--buffer) "a(\n\tb\n|\n"))))

(ert-deftest dg-lsp-ghost-tests-nothing-beyond-a-narrowing ()
  (dg-lsp-ghost-tests-in "f(|)\n"
    (narrow-to-region (point-min) (point))
    (should-not (dg-lsp-ghost-tests--offer "a)" 1))
    (should (dg-lsp-ghost-tests--offer "a"))))

(ert-deftest dg-lsp-ghost-tests-what-changes-nothing-is-not-offered ()
  (dg-lsp-ghost-tests-in "f(|)\n"
    (should-not (dg-lsp-ghost-tests--offer ")" 1))
    (should-not (dg-lsp-ghost-tests--offer ""))
    (should-not (dg-lsp-ghost-offer nil))))

(ert-deftest dg-lsp-ghost-tests-cycling-goes-round ()
  (dg-lsp-ghost-tests-in "|"
    (dg-lsp-ghost-offer (mapcar (lambda (text)
                                  (dg-lsp-ghost-item (point) (point) text))
                                '("one" "two" "three")))
    (dg-lsp-ghost-cycle 1)
    (should (equal (dg-lsp-ghost-rest) "two"))
    (dg-lsp-ghost-cycle -2)
    (should (equal (dg-lsp-ghost-rest) "three"))
    (dg-lsp-ghost-cycle 1)
    (should (equal (dg-lsp-ghost-rest) "one"))
    (dg-lsp-ghost-tests--do "t")
    (should-not (dg-lsp-ghost-rest)))
  (dg-lsp-ghost-tests-in "|"
    (dg-lsp-ghost-tests--offer "one")
    (dg-lsp-ghost-cycle 1)
    (should (equal (dg-lsp-ghost-rest) "one"))))

(ert-deftest dg-lsp-ghost-tests-a-draft-cannot-be-accepted ()
  (dg-lsp-ghost-tests-in "x = |\n"
    (dg-lsp-ghost-sketch '(("foo" . t) ("···" . nil)))
    (should (equal (dg-lsp-ghost-tests--seen) "x = foo···\n"))
    (should-not dg-lsp-ghost-acceptable)
    (should-not (dg-lsp-ghost-rest))
    (let ((shown (overlay-get (car (dg-lsp-ghost-tests--overlays))
                              'after-string)))
      (should (eq (get-text-property 0 'face shown) 'dg-lsp-settled))
      (should (eq (get-text-property 3 'face shown) 'dg-lsp-unsettled)))
    (dg-lsp-ghost-tests--offer "foobar")
    (dg-lsp-ghost-sketch '(("never" . nil)))
    (should (equal (dg-lsp-ghost-tests--seen) "x = foobar\n"))
    (dg-lsp-ghost-hide)
    (dg-lsp-ghost-sketch '(("foo" . nil)))
    (dg-lsp-ghost-tests--do "f")
    (should-not (dg-lsp-ghost-tests--overlays))))

(provide 'dg-lsp-ghost-tests)
;;; dg-lsp-ghost-tests.el ends here
